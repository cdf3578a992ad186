"""From folders, manifests, tar and Parquet files, local or remote, to framed pictures: list, plan, fetch, decode."""
