"""The operator's commands: `glassq COMMAND`. This room parses options, asks, prints and sets exit codes.

What a command does to a running system is an operation (operations/). A command is a module in commands/, a line in
COMMANDS and a name in SECTIONS (main.py); its manual page comes by itself.
"""
