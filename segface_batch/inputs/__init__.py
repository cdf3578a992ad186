"""From folders, manifests, tar and Parquet files, local or remote, to cropped images: list, plan, fetch, decode."""
