"""What the machine offers: memory, cores, files that appear only when whole, the cache of converted networks."""
