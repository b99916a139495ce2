"""What is pushed: a source opened for a push, and which of its images go where."""
