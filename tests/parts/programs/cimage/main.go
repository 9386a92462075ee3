// Program cimage is the containers/image library of one release. Without arguments it answers how that reads registries.conf, pulls and
// signs: one JSON request a line on standard input, one JSON answer a line on standard output; tests ask it thousands of times in one
// process. With arguments it is an engine around the library: see daemon.go.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/containers/image/v5/pkg/sysregistriesv2"
	"github.com/containers/image/v5/types"
	"github.com/containers/storage/pkg/reexec"
)

// request names the files and the references that are looked up in them.
type request struct {
	Conf       string   `json:"conf"`
	ConfDir    string   `json:"conf_dir"`
	References []string `json:"references"`
	Pull       *pull    `json:"pull"`
	Sign       *signing `json:"sign"`
}

// answer holds one resolution for each reference, unless the files cannot be read.
type answer struct {
	Error       string       `json:"error,omitempty"`
	Unqualified []string     `json:"unqualified"`
	Resolutions []resolution `json:"resolutions"`
	// Pulled is the digest of the manifest.
	Pulled string `json:"pulled,omitempty"`
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
	if asked.Sign != nil {
		if result.Pulled, err = asked.Sign.sign(*system); err != nil {
			result.Error = err.Error()
		}
	}
	return result
}

func main() {
	// Layers are unpacked by another process of this program.
	if reexec.Init() {
		return
	}
	if len(os.Args) > 1 {
		if err := serve(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
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
