module larder.dev/parts/containerd-2.1

go 1.26

require github.com/containerd/containerd/v2 v2.1.9
