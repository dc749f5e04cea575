"""What a server of months needs besides serving.

disk.py   what takes room, and exports that may go
"""
