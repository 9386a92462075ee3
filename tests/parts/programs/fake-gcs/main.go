// fake-gcs is an emulator of Google Cloud Storage: fake-gcs-server, which holds the objects and speaks Google's JSON interface, and in front of it
// what it does not have, Google's XML interface (xml.go, multipart.go) and the question who asks (access.go). Written after Google's reference of the XML
// interface, not after the client that is tested with it.
//
//	fake-gcs -listen ADDRESS -bucket NAME -account FILE
//
// FILE is a service account's, as Google gives it out: whoever has its key may do everything.
package main

import (
	"flag"
	"log"
	"net/http"
	"strings"

	"github.com/fsouza/fake-gcs-server/fakestorage"
)

func main() {
	listen := flag.String("listen", "", "where to listen")
	bucket := flag.String("bucket", "", "the bucket that there is")
	account := flag.String("account", "", "file of the service account")
	flag.Parse()

	server, err := fakestorage.NewServerWithOptions(fakestorage.Options{NoListener: true})
	if err != nil {
		log.Fatal(err)
	}
	server.CreateBucketWithOpts(fakestorage.CreateBucketOpts{Name: *bucket})
	known, err := readAccount(*account)
	if err != nil {
		log.Fatal(err)
	}
	front := &front{json: server.HTTPHandler(), uploads: map[string]*upload{}}
	log.Fatal(http.ListenAndServe(*listen, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The emulator's own interface, for tests.
		if strings.HasPrefix(r.URL.Path, "/storage/v1/") {
			server.HTTPHandler().ServeHTTP(w, r)
			return
		}
		if r.URL.Path == "/computeMetadata/v1/instance/service-accounts/default/token" {
			metadata(w, r)
			return
		}
		if status, code, reason := known.refuses(r); status != 0 {
			refuse(w, status, code, reason)
			return
		}
		front.ServeHTTP(w, r)
	})))
}
