"""The operator's commands: `glassq COMMAND`, one module for each group of them."""
