"""What the readers of labelled datasets share."""
