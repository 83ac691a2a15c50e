"""The folder of a finetuning and what is written into it at the end."""
