package main

import (
	"context"
	"encoding/base64"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/signature"
	istorage "github.com/containers/image/v5/storage"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage"
	"google.golang.org/grpc"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// engine is what of CRI-O is about images, around this release of the library, at a CRI socket: it reads registries.conf when it starts
// and at SIGHUP, and pulls into containers/storage with the same calls and the same context as CRI-O's internal/storage and
// internal/server do. It has no containers and no configuration of its own, and every path is the library's own default.
type engine struct {
	runtime.UnimplementedRuntimeServiceServer
	runtime.UnimplementedImageServiceServer
	store   storage.Store
	version string
	system  types.SystemContext
	// looksFirst says whether it looks at the image before it pulls it, as CRI-O did up to 1.30.
	looksFirst bool
}

// serve runs until it gets SIGTERM.
func serve(arguments []string) error {
	flags := flag.NewFlagSet("crio", flag.ContinueOnError)
	listen := flags.String("listen", "/run/crio/crio.sock", "the CRI socket")
	version := flags.String("version-said", "0.0.0", "the CRI-O that the library is of")
	looksFirst := flags.Bool("looks-first", false, "look at an image before it is pulled")
	if err := flags.Parse(arguments); err != nil {
		return err
	}
	engine := &engine{version: *version, looksFirst: *looksFirst}
	engine.system.DockerRegistryUserAgent = "cri-o/" + *version
	if _, err := sysregistriesv2.GetRegistries(&engine.system); err != nil {
		return fmt.Errorf("invalid registries: %w", err)
	}
	store, err := storage.GetStore(storage.StoreOptions{
		RunRoot:         "/run/containers/storage",
		GraphRoot:       "/var/lib/containers/storage",
		GraphDriverName: "vfs",
	})
	if err != nil {
		return err
	}
	engine.store = store
	// From here on it is no longer ended by the signal.
	reloads := make(chan os.Signal, 1)
	signal.Notify(reloads, syscall.SIGHUP)
	go engine.reload(reloads)
	if err := os.Remove(*listen); err != nil && !os.IsNotExist(err) {
		return err
	}
	listener, err := net.Listen("unix", *listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	runtime.RegisterRuntimeServiceServer(server, engine)
	runtime.RegisterImageServiceServer(server, engine)
	return server.Serve(listener)
}

// reload reads the files again each time, and keeps what it had where they cannot be read. The words are CRI-O's.
func (engine *engine) reload(signals <-chan os.Signal) {
	for range signals {
		if _, err := sysregistriesv2.TryUpdatingCache(&engine.system); err != nil {
			fmt.Printf("Unable to reload configuration: system registries reload failed: %v\n", err)
			continue
		}
		fmt.Println("Configuration reload completed")
	}
}

func (engine *engine) Version(context.Context, *runtime.VersionRequest) (*runtime.VersionResponse, error) {
	return &runtime.VersionResponse{
		Version: "0.1.0", RuntimeName: "cri-o", RuntimeVersion: engine.version, RuntimeApiVersion: "v1",
	}, nil
}

func (engine *engine) Status(context.Context, *runtime.StatusRequest) (*runtime.StatusResponse, error) {
	ready := &runtime.RuntimeCondition{Type: runtime.RuntimeReady, Status: true}
	return &runtime.StatusResponse{Status: &runtime.RuntimeStatus{Conditions: []*runtime.RuntimeCondition{ready}}}, nil
}

func (engine *engine) ListContainers(context.Context, *runtime.ListContainersRequest) (*runtime.ListContainersResponse, error) {
	return &runtime.ListContainersResponse{}, nil
}

func (engine *engine) PullImage(ctx context.Context, asked *runtime.PullImageRequest) (answer *runtime.PullImageResponse, err error) {
	defer func() {
		// One broken pull is not the end of the others.
		if cause := recover(); cause != nil {
			answer, err = nil, fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
		}
	}()
	named, err := reference.ParseNormalizedNamed(asked.GetImage().GetImage())
	if err != nil {
		return nil, err
	}
	if digested, ok := named.(reference.Digested); ok {
		// With both a tag and a digest, what counts is the digest.
		if named, err = reference.WithDigest(reference.TrimNamed(named), digested.Digest()); err != nil {
			return nil, err
		}
	}
	from, err := docker.NewReference(reference.TagNameOnly(named))
	if err != nil {
		return nil, err
	}
	source := engine.system
	source.DockerLogMirrorChoice = true
	if source.DockerAuthConfig, err = credentials(asked.GetAuth()); err != nil {
		return nil, err
	}
	if isLoopback(reference.Domain(named)) {
		source.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	}
	if err := engine.pull(ctx, &source, from); err != nil {
		fmt.Printf("could not pull %s: %v\n", named, err)
		return nil, err
	}
	image, err := engine.find(from.DockerReference().String())
	if err != nil {
		return nil, err
	}
	if image == nil {
		return nil, fmt.Errorf("%s was pulled and is not there", named)
	}
	return &runtime.PullImageResponse{ImageRef: image.ID}, nil
}

func (engine *engine) pull(ctx context.Context, source *types.SystemContext, from types.ImageReference) error {
	to, err := istorage.Transport.ParseStoreReference(engine.store, from.DockerReference().String())
	if err != nil {
		return err
	}
	if engine.looksFirst {
		looked, err := from.NewImage(ctx, source)
		if err != nil {
			return err
		}
		digest := looked.ConfigInfo().Digest
		if err := looked.Close(); err != nil {
			return err
		}
		known, err := engine.find(from.DockerReference().String())
		if err != nil {
			return err
		}
		if known != nil && known.ID == digest.Encoded() {
			return nil
		}
	}
	policy, err := signature.DefaultPolicy(&engine.system)
	if err != nil {
		return err
	}
	allowed, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	defer func() { _ = allowed.Destroy() }()
	_, err = copy.Image(ctx, allowed, to, from, &copy.Options{SourceCtx: source, DestinationCtx: &engine.system})
	return err
}

// credentials are the Pod's, in either of the forms that kubelet may send.
func credentials(auth *runtime.AuthConfig) (*types.DockerAuthConfig, error) {
	if auth.GetUsername() == "" && auth.GetAuth() == "" {
		return nil, nil
	}
	if auth.GetUsername() != "" {
		return &types.DockerAuthConfig{Username: auth.GetUsername(), Password: auth.GetPassword()}, nil
	}
	text, err := base64.StdEncoding.DecodeString(auth.GetAuth())
	if err != nil {
		return nil, err
	}
	user, password, _ := strings.Cut(string(text), ":")
	return &types.DockerAuthConfig{Username: user, Password: password}, nil
}

// isLoopback says whether CRI-O takes a registry for one without TLS.
func isLoopback(registry string) bool {
	host, _, err := net.SplitHostPort(registry)
	if err != nil {
		host = registry
	}
	addresses, err := net.LookupIP(host)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(addresses, net.IP.IsLoopback)
}
