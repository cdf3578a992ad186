"""From a folder or manifest to framed pictures: list, plan, fetch, decode, frame."""
