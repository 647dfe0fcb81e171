"""The strategies that come with benchframe, one file each. Adding one: docs/plugins.md, then install again."""
