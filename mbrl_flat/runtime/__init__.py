"""What a process needs below all else: device, seeds, files, locks, signals."""
