module larder.dev/parts/containerd-1.7

go 1.26

require github.com/containerd/containerd v1.7.35
