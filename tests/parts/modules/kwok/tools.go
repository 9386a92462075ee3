//go:build tools

// Package tools names the commands that are built; versions are in go.mod.
package tools

import (
	_ "sigs.k8s.io/kwok/cmd/kwok"
)
