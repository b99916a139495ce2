"""Where the time of a push went: taken down while it runs, told as a file at its end."""
