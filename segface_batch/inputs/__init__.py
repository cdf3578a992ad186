"""From folders, manifests, tar and Parquet files, local or behind URLs, to framed pictures: list, plan, fetch, decode."""
