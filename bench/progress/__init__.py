"""What a run is doing and how long it will take: a live view, or plain lines in a pipe."""
