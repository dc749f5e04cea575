"""What a server of months needs besides serving.

backups.py   one file with all that cannot be made again, and back
disk.py      what takes room, and exports that may go
"""
