//go:build tools

// Package tools names the commands that are built; versions are in go.mod.
package tools

import (
	_ "github.com/versity/versitygw/cmd/versitygw"
)
