"""The simulated Glass: the Mirror API, its users and its pings, on this machine."""
