"""Containers and metadata that several layouts share."""
