"""The libraries that several compression methods share."""
