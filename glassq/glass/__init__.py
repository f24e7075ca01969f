"""What is done with a Glass ping: look at the timeline item and store its photos."""
