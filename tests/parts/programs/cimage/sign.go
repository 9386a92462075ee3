package main

import (
	"os"
	"path/filepath"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/docker/reference"
	"github.com/containers/image/v5/signature/sigstore"
	"github.com/containers/image/v5/types"
)

// signing asks for a copy of an image with a sigstore signature of its manifest.
type signing struct {
	Reference string `json:"reference"`
	// Into is a folder, which gets the image's files and beside them `signature-1`.
	Into string `json:"into"`
	// Keys is a folder, which gets `private.key` and `public.key` unless they are there.
	Keys string `json:"keys"`
}

func (asked *signing) sign(system types.SystemContext) (string, error) {
	private := filepath.Join(asked.Keys, "private.key")
	passphrase := []byte("of no secret")
	if _, err := os.Stat(private); err != nil {
		pair, err := sigstore.GenerateKeyPair(passphrase)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(private, pair.PrivateKey, 0o600); err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(asked.Keys, "public.key"), pair.PublicKey, 0o644); err != nil {
			return "", err
		}
	}
	named, err := reference.ParseNormalizedNamed(asked.Reference)
	if err != nil {
		return "", err
	}
	system.RegistriesDirPath = "/nonexistent"
	system.DockerInsecureSkipTLSVerify = types.OptionalBoolTrue
	return transfer(asked.Reference, asked.Into, anything(), system, copy.Options{
		SignBySigstorePrivateKeyFile:     private,
		SignSigstorePrivateKeyPassphrase: passphrase,
		SignIdentity:                     reference.TagNameOnly(named),
	})
}
