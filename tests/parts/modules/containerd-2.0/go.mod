module larder.dev/parts/containerd-2.0

go 1.26

require github.com/containerd/containerd/v2 v2.0.14
