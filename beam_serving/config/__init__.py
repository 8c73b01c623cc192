"""The service's settings: what a configuration file may say, and the files of the older servers."""
