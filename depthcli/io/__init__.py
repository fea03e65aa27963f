"""Files: pictures in, depth out; each format's reader beside its writer."""
