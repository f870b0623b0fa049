/* Decodes a box of a JPEG with libjpeg-turbo: rows above are skipped, rows below never read, columns outside never
 * transformed. The box's pixels equal those of a full decode; partial_decode.py checks that before it uses a build. */
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>

#include <jpeglib.h>

struct errors {
  struct jpeg_error_mgr base;
  jmp_buf jump;
};

static void fail(j_common_ptr info) { longjmp(((struct errors *)info->err)->jump, 1); }
static void quiet(j_common_ptr info) { (void)info; }
static void count(j_common_ptr info, int level) {
  if (level < 0) info->err->num_warnings++;
}

/* Chroma upsampling looks at neighbours, so more than the box is decoded, and the decoder itself rounds to blocks. */
enum { MARGIN = 16 };

/* data: a JPEG of size bytes that must be height x width; box: top, left, height, width.
 * out: at least 3 * height * width bytes. shown: on return first row, first column, rows, columns that out holds.
 * Returns 0, or non-zero if the part that was read is damaged. */
int decode_box(const uint8_t *data, int64_t size, int64_t height, int64_t width, const int64_t *box, uint8_t *out,
               int64_t *shown) {
  struct jpeg_decompress_struct jpeg;
  struct errors errors;
  jpeg.err = jpeg_std_error(&errors.base);
  errors.base.error_exit = fail;
  errors.base.output_message = quiet;
  errors.base.emit_message = count;
  if (setjmp(errors.jump)) {
    jpeg_destroy_decompress(&jpeg);
    return -1;
  }
  jpeg_create_decompress(&jpeg);
  jpeg_mem_src(&jpeg, data, (unsigned long)size);
  jpeg_read_header(&jpeg, TRUE);
  if (jpeg.image_height != height || jpeg.image_width != width) {
    jpeg_destroy_decompress(&jpeg);
    return -1;
  }
  jpeg.out_color_space = JCS_RGB;
  jpeg.dct_method = JDCT_IFAST; /* as FFCV's own decode: TJFLAG_FASTDCT */
  jpeg_start_decompress(&jpeg);
  int64_t first = box[0] > MARGIN ? box[0] - MARGIN : 0, last = box[0] + box[2];
  int64_t left = box[1] > MARGIN ? box[1] - MARGIN : 0, right = box[1] + box[3] + MARGIN;
  if (right > width) right = width;
  JDIMENSION column = (JDIMENSION)left, columns = (JDIMENSION)(right - left);
  if (columns < width) jpeg_crop_scanline(&jpeg, &column, &columns);
  if (first > 0) jpeg_skip_scanlines(&jpeg, (JDIMENSION)first);
  while (jpeg.output_scanline < last) {
    JSAMPROW row = out + 3 * (int64_t)columns * (jpeg.output_scanline - first);
    jpeg_read_scanlines(&jpeg, &row, 1);
  }
  shown[0] = first;
  shown[1] = column;
  shown[2] = last - first;
  shown[3] = columns;
  long warnings = errors.base.num_warnings;
  jpeg_destroy_decompress(&jpeg);
  return warnings != 0;
}
