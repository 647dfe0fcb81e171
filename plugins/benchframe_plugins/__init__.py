"""The strategies that come with benchframe, one file each. To add one, see docs/plugins.md, then install again."""
