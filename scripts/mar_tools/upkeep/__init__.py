"""What a server of months needs besides serving.

backups.py         one file with all that cannot be made again, and back
disk.py            what takes room, and exports that may go
changes.py         what this version changes for whoever ran an earlier one
upgrade_check.py   which of these concern a server
"""
