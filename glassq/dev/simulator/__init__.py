"""A simulated Glass on this machine: the Mirror API, its users and its pings. glass.py is the way in."""
