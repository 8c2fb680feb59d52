"""The commands, a module per room; `blm.cli` puts them together. Heavy libraries are imported inside commands only."""
