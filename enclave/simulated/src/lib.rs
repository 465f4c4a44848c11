//! SIMULATED enclaves for development and tests: an authority of their own and enclave-app without hardware
