module larder.dev/parts/containerd-1.6

go 1.26

replace github.com/gogo/googleapis => github.com/gogo/googleapis v1.3.2

replace github.com/urfave/cli => github.com/urfave/cli v1.22.1

replace google.golang.org/genproto => google.golang.org/genproto v0.0.0-20200224152610-e50cd9704f63

require github.com/containerd/containerd v1.6.38
