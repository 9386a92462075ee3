package main

import (
	"bytes"
	"crypto/md5"
	"crypto/rand"
	"encoding/hex"
	"encoding/xml"
	"io"
	"net/http"
	"sort"
	"strconv"
	"strings"
)

// An upload in parts, which is nothing before its end.
type upload struct {
	bucket, object string
	parts          map[int]part
}

type part struct {
	bytes []byte
	etag  string
}

func (f *front) multipart(w http.ResponseWriter, r *http.Request, bucket, object string) {
	query := r.URL.Query()
	if query.Has("uploads") {
		if r.Method != http.MethodPost {
			refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", r.Method)
			return
		}
		var random [16]byte
		_, _ = rand.Read(random[:])
		id := hex.EncodeToString(random[:])
		f.lock.Lock()
		f.uploads[id] = &upload{bucket, object, map[int]part{}}
		f.lock.Unlock()
		answer(w, struct {
			XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
			Bucket   string
			Key      string
			UploadId string
		}{Bucket: bucket, Key: object, UploadId: id})
		return
	}
	id := query.Get("uploadId")
	f.lock.Lock()
	begun, known := f.uploads[id]
	f.lock.Unlock()
	if !known || begun.bucket != bucket || begun.object != object {
		refuse(w, http.StatusNotFound, "NoSuchUpload", id)
		return
	}
	switch r.Method {
	case http.MethodPut:
		number, err := strconv.Atoi(query.Get("partNumber"))
		if err != nil || number < 1 || number > 10000 {
			refuse(w, http.StatusBadRequest, "InvalidArgument", "partNumber")
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			refuse(w, http.StatusBadRequest, "IncompleteBody", err.Error())
			return
		}
		sum := md5.Sum(body)
		etag := quoted(hex.EncodeToString(sum[:]))
		f.lock.Lock()
		begun.parts[number] = part{body, etag}
		f.lock.Unlock()
		w.Header().Set("ETag", etag)
		w.WriteHeader(http.StatusOK)
	case http.MethodDelete:
		f.lock.Lock()
		delete(f.uploads, id)
		f.lock.Unlock()
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPost:
		f.complete(w, r, id, begun)
	default:
		refuse(w, http.StatusMethodNotAllowed, "MethodNotAllowed", r.Method)
	}
}

const smallest = 5 << 20

func (f *front) complete(w http.ResponseWriter, r *http.Request, id string, begun *upload) {
	var wanted struct {
		Part []struct {
			PartNumber int
			ETag       string
		}
	}
	if err := xml.NewDecoder(r.Body).Decode(&wanted); err != nil || len(wanted.Part) == 0 {
		refuse(w, http.StatusBadRequest, "MalformedXML", "a list of parts is needed")
		return
	}
	if !sort.SliceIsSorted(wanted.Part, func(a, b int) bool { return wanted.Part[a].PartNumber < wanted.Part[b].PartNumber }) {
		refuse(w, http.StatusBadRequest, "InvalidPartOrder", id)
		return
	}
	var pieces []io.Reader
	f.lock.Lock()
	for number, one := range wanted.Part {
		there, known := begun.parts[one.PartNumber]
		if !known || strings.Trim(there.etag, `"`) != strings.Trim(one.ETag, `"`) {
			f.lock.Unlock()
			refuse(w, http.StatusBadRequest, "InvalidPart", strconv.Itoa(one.PartNumber))
			return
		}
		if len(there.bytes) < smallest && number < len(wanted.Part)-1 {
			f.lock.Unlock()
			refuse(w, http.StatusBadRequest, "EntityTooSmall", strconv.Itoa(one.PartNumber))
			return
		}
		pieces = append(pieces, bytes.NewReader(there.bytes))
	}
	f.lock.Unlock()
	made, done := f.insert(w, r, begun.bucket, begun.object, io.MultiReader(pieces...))
	if !done {
		return
	}
	f.lock.Lock()
	delete(f.uploads, id)
	f.lock.Unlock()
	answer(w, struct {
		XMLName  xml.Name `xml:"CompleteMultipartUploadResult"`
		Location string
		Bucket   string
		Key      string
		ETag     string
	}{Location: "http://" + r.Host + r.URL.Path, Bucket: begun.bucket, Key: begun.object, ETag: quoted(made.Etag)})
}
