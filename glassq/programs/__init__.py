"""The main functions of the two daemons. `bin/` and the installed commands call them."""
