//! The embedded backend: Parquet files and a manifest on disk, open cells in memory, questions run by DataFusion.
