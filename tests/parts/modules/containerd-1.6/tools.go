//go:build tools

// Package tools names the commands that are built; versions are in go.mod.
package tools

import (
	_ "github.com/containerd/containerd/cmd/containerd"
	_ "github.com/containerd/containerd/cmd/ctr"
	_ "github.com/containerd/containerd/cmd/containerd-shim-runc-v2"
)
