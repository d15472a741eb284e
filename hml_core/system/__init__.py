"""What stands between the package and the machine: devices, files, locks, progress."""
