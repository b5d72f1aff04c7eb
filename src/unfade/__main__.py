"""`python -m unfade`, for where the command is not on the path."""

from unfade.cli import start

start()
