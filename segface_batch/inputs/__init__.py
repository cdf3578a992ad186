"""The images of folders, manifests, tar files and Parquet files, local or remote, and where their bytes lie."""
