// Program cimage answers how the containers/image library of one release reads registries.conf, and pulls images with it as CRI-O
// does: one JSON request a line on standard input, one JSON answer a line on standard output. Tests ask it thousands of times in one
// process.
package main

import (
	"bufio"
	"context"
	// References with a digest are refused where its algorithm is not linked.
	_ "crypto/sha256"
	"encoding/json"
	"fmt"
	"os"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/directory"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/manifest"
	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"
)

// request names the files and the references that are looked up in them.
type request struct {
	Conf       string   `json:"conf"`
	ConfDir    string   `json:"conf_dir"`
	References []string `json:"references"`
	Pull       *pull    `json:"pull"`
}

// pull asks for one image, as kubelet's request makes CRI-O fetch it.
type pull struct {
	Reference string `json:"reference"`
	// Into is a folder, which gets the image's files.
	Into string `json:"into"`
	// Policy is policy.json; without one everything is accepted.
	Policy string `json:"policy"`
	// RegistriesDir is registries.d; without one no signatures are looked for.
	RegistriesDir string `json:"registries_d"`
	// CertDir is certs.d.
	CertDir  string `json:"certs_d"`
	AuthFile string `json:"auth_file"`
	Username string `json:"username"`
	Password string `json:"password"`
}

// source is an endpoint that would be tried, in order.
type source struct {
	Location  string `json:"location"`
	Insecure  bool   `json:"insecure"`
	Reference string `json:"reference"`
	// Blocked says whether the client refuses to ask there, by the entry that is for the endpoint itself.
	Blocked bool `json:"blocked"`
}

// resolution is what becomes of one reference.
type resolution struct {
	// Error is set when no source can be named at all.
	Error string `json:"error,omitempty"`
	// Found says whether an entry of the configuration is for it.
	Found   bool     `json:"found"`
	Prefix  string   `json:"prefix"`
	Blocked bool     `json:"blocked"`
	Sources []source `json:"sources"`
}

// answer holds one resolution for each reference, unless the files cannot be read.
type answer struct {
	Error       string       `json:"error,omitempty"`
	Unqualified []string     `json:"unqualified"`
	Resolutions []resolution `json:"resolutions"`
	// Pulled is the digest of the manifest.
	Pulled string `json:"pulled,omitempty"`
}

// fetch does what PullImage in CRI-O's internal/storage does, but for where the image is put.
func (asked *pull) fetch(system types.SystemContext) (string, error) {
	named, err := reference.ParseNormalizedNamed(asked.Reference)
	if err != nil {
		return "", err
	}
	from, err := docker.NewReference(reference.TagNameOnly(named))
	if err != nil {
		return "", err
	}
	to, err := directory.NewReference(asked.Into)
	if err != nil {
		return "", err
	}
	policy := &signature.Policy{Default: []signature.PolicyRequirement{signature.NewPRInsecureAcceptAnything()}}
	if asked.Policy != "" {
		if policy, err = signature.NewPolicyFromFile(asked.Policy); err != nil {
			return "", err
		}
	}
	allowed, err := signature.NewPolicyContext(policy)
	if err != nil {
		return "", err
	}
	defer func() { _ = allowed.Destroy() }()
	system.RegistriesDirPath = asked.RegistriesDir
	if system.RegistriesDirPath == "" {
		system.RegistriesDirPath = "/nonexistent"
	}
	system.DockerPerHostCertDirPath = asked.CertDir
	system.AuthFilePath = asked.AuthFile
	// Without a home it would remember in a folder of the machine where blobs were seen.
	system.BlobInfoCacheDir = asked.Into + ".cache"
	if asked.Username != "" {
		system.DockerAuthConfig = &types.DockerAuthConfig{Username: asked.Username, Password: asked.Password}
	}
	bytes, err := copy.Image(context.Background(), allowed, to, from, &copy.Options{SourceCtx: &system, DestinationCtx: &system})
	if err != nil {
		return "", err
	}
	digest, err := manifest.Digest(bytes)
	return digest.String(), err
}

func resolve(system *types.SystemContext, text string) resolution {
	named, err := reference.ParseNormalizedNamed(text)
	if err != nil {
		return resolution{Error: "reference: " + err.Error()}
	}
	named = reference.TagNameOnly(named)
	registry, err := sysregistriesv2.FindRegistry(system, named.Name())
	if err != nil {
		return resolution{Error: err.Error()}
	}
	result := resolution{Found: registry != nil}
	if registry == nil {
		// As newImageSource does it.
		registry = &sysregistriesv2.Registry{
			Endpoint: sysregistriesv2.Endpoint{Location: named.String()},
			Prefix:   named.String(),
		}
	}
	result.Prefix, result.Blocked = registry.Prefix, registry.Blocked
	sources, err := registry.PullSourcesFromReference(named)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	for _, pull := range sources {
		endpoint, err := sysregistriesv2.FindRegistry(system, pull.Reference.Name())
		if err != nil {
			return resolution{Error: err.Error()}
		}
		result.Sources = append(result.Sources, source{
			Location:  pull.Endpoint.Location,
			Insecure:  pull.Endpoint.Insecure,
			Reference: pull.Reference.String(),
			Blocked:   endpoint != nil && endpoint.Blocked,
		})
	}
	return result
}

func answerTo(line []byte) answer {
	var asked request
	if err := json.Unmarshal(line, &asked); err != nil {
		return answer{Error: "request: " + err.Error()}
	}
	system := &types.SystemContext{
		SystemRegistriesConfPath:    asked.Conf,
		SystemRegistriesConfDirPath: asked.ConfDir,
	}
	// The library remembers files by their paths for as long as the process lives.
	sysregistriesv2.InvalidateCache()
	if _, err := sysregistriesv2.TryUpdatingCache(system); err != nil {
		return answer{Error: err.Error()}
	}
	unqualified, err := sysregistriesv2.UnqualifiedSearchRegistries(system)
	if err != nil {
		return answer{Error: err.Error()}
	}
	result := answer{Unqualified: unqualified}
	for _, text := range asked.References {
		result.Resolutions = append(result.Resolutions, resolve(system, text))
	}
	if asked.Pull != nil {
		if result.Pulled, err = asked.Pull.fetch(*system); err != nil {
			result.Error = err.Error()
		}
	}
	return result
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriter(os.Stdout)
	encoder := json.NewEncoder(out)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			if err := encoder.Encode(answerTo(line)); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			out.Flush()
		}
		if err != nil {
			return
		}
	}
}
