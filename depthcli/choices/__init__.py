"""What a user can choose, as frozen values: the same for the command line, a service and a cluster.

None and "auto" mean: choose for me. A choice checks itself when it is made, raises UsageError, and can be pickled.
"""
