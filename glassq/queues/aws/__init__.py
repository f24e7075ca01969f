"""What the engines at Amazon share: calls within a time of their own, errors in words, long polls, bytes as text."""
