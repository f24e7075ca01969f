"""The commands, a module each: options -> Selection -> Operations -> table or report."""
