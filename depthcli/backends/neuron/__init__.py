"""AWS Inferentia and Trainium: compilers, cores, and the files they run."""
