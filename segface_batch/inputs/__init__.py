"""The images of folders, manifests, tar files and Parquet files, local or remote: listed, not yet read."""
