"""The HTTP side: takes a ping, makes it durable, answers."""
