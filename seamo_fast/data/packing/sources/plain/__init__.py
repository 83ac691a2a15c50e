"""Plain folders of images, which no mapping describes."""
