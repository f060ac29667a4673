"""The tests of Headwater; they mirror the folders of the package."""
