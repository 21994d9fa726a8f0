//! Micro-benchmarks, generators and the side-by-side harness.
